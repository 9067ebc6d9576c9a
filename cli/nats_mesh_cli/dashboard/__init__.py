"""The web view: one page, served on this machine, fed by the statistics that members publish while somebody looks."""
