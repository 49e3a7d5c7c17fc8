"""Reports: the analyses and tables as text, HTML, figures and LaTeX. No statistics here, and no scipy."""
