"""The demo's data: drawn scenes, drawings, photographs and the questions about them."""
