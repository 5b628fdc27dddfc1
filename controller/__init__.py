"""Keep the Workspaces' status true, here and on a cluster, and the command line."""
