"""The caller's side: targets and what each of them follows, and a call on its way."""
