"""What may be asked for, and what is known: Workspaces, models, training configs, Recipes."""
