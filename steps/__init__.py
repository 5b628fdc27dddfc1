"""What happens inside a pod, one verb a module."""
