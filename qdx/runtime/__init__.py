"""Running bundles and pipelines: methods on the target, one way to call a pipeline, recorded references."""
