"""TensorRT: rules for its models, engines and their records, and running them."""
