"""What is known of storage pools and volumes, and Cinder's rules on one pool."""
