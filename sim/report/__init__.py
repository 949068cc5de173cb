"""Reports of runs: HTML, pictures, tables and the terminal."""
