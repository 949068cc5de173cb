"""nova.conf and cinder.conf as they are: read by oslo.config, into the values of the options that Hostler knows."""
