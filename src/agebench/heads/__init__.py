"""What turns the outputs of a network into a loss, a posterior over labels and a point estimate."""
