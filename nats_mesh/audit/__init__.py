"""The audit: who changed what, when and why, and who was there, kept in a stream to rebuild a past moment from.

``records`` defines what is written, ``stream`` the stream it is kept in. ``writing`` and ``signs`` write: operators
wait until it is kept, instances never wait. ``reading`` reads and says what is not to be believed. Nothing here knows
policies: their documents of a past moment are rebuilt by :mod:`nats_mesh.policy.bus.past`.
"""
