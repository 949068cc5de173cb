"""A second policy, judged beside each live decision by a child process that follows the service."""
