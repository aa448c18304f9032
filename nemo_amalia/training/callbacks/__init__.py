"""What happens around Bridge's loop: progress and metrics, dropped samples, gradient norms, the run's state."""
