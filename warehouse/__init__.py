"""A warehouse of collated activations: every neuron, attention head and autoencoder latent in Parquet and DuckDB."""
