"""One driver for each port; an adapter never imports another."""
