"""What `bridgedepth infer` and `bridgedepth depth` do around the networks: find, read, run, write."""
