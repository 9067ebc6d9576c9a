"""Speed, as ratios against what runs beside it. ``make bench`` runs it; no test asserts a figure."""
