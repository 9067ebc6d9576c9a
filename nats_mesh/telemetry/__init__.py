"""What happened: plain numbers, and how observers get them."""
