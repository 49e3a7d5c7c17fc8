"""Reports: what is in the analyses and tables, as text, HTML, figures and LaTeX. Nothing is computed here; no scipy."""
