"""The register that the arbiter `etcd` uses: one key of an etcd cluster."""
