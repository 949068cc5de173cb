"""What an OpenStack cloud says of itself, in the databases of Placement and Nova or over Placement's API, as values."""
