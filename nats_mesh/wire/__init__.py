"""The bus: subjects, headers, codecs, and the connection that carries them."""
