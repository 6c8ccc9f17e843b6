"""Reference network configurations; ``README.md`` here says where they come from."""
