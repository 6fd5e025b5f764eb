"""How the documentation is built: make docs. It needs no network, and neither do its pages."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "hemostat"
author = "the hemostat authors"
copyright = "the hemostat authors, Apache License 2.0"
release = version = re.search(r"project\(hemostat VERSION ([0-9.]+)", (HERE.parent / "CMakeLists.txt").read_text())[1]

extensions = [
    "myst_parser",
    "sphinx_copybutton",
    "command_line",
    "cpp_reference",
    "mathml",
    "method_page",
    "notebook_page",
    "python_reference",
]
exclude_patterns = ["_extensions"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# Every reference to a name of ours must resolve; those of Python, torch and the C++ library have no pages here.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!hemostat\b).*"), (r"cpp:.*", r".*")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 96
cpp_maximum_signature_line_length = 96
add_module_names = False

html_theme = "furo"
html_title = f"hemostat {release}"
html_static_path = ["_static"]
html_css_files = ["hemostat.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
