"""Pictures of the pages, made by `./dev docs pictures`: real runs, drawn as SVG."""
