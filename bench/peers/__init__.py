"""Other engines at the same work, each as it is meant to be used."""
