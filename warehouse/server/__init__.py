"""The lake over HTTP: the bucket's file tree, a JSON API, and pages for people. Nothing here can write."""
