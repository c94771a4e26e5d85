"""What the bundled model can be asked: one module for each family of topics."""
