"""Recipe to Plan to Argo Workflow, and the engine that runs that Workflow on one machine."""
