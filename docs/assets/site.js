// What the theme leaves out for those who use a keyboard or a screen reader.
addEventListener("load", () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
  }
  for (const section of document.querySelectorAll("nav[aria-labelledby]")) {
    const title = section.parentElement.querySelector(".md-ellipsis");
    if (title) section.setAttribute("aria-label", title.textContent.trim());
    section.removeAttribute("aria-labelledby");
  }
  for (const buttons of document.querySelectorAll("nav.md-code__nav")) {
    buttons.setAttribute("role", "none");
  }
});
