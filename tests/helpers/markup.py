"""A page's markup as a browser would read it, and texts that try to become markup."""

from html.parser import HTMLParser

FOREIGN = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'><b onclick='alert(1)'>{{ 7 * 7 }}&amp;")


class Page(HTMLParser):
    """Tags with attributes, the text, and the stack's balance."""

    VOID = {"meta", "link", "img", "br", "use", "path"}

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.open, self.unbalanced, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.text += data

    def values(self, name: str) -> list[str]:
        """What every tag that has the attribute says in it."""
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def shape(self) -> list[tuple[str, frozenset[str]]]:
        """Every tag with the names of its attributes."""
        return [(tag, frozenset(attributes)) for tag, attributes in self.tags]
