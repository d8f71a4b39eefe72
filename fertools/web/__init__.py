"""A model as a page for browsers: a folder for any static server, which needs nothing from elsewhere."""

from fertools.web.page import Page, PageParts, WebConfig, check_replaceable, gather, write_page

__all__ = ["Page", "PageParts", "WebConfig", "check_replaceable", "gather", "write_page"]
