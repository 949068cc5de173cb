"""What came of runs, shown: HTML, pictures, tables and the terminal."""
