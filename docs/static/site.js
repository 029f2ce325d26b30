// What the generator leaves out for a keyboard and a screen reader.
for (const caption of document.querySelectorAll('.caption[role="heading"]')) caption.setAttribute("aria-level", "2");
for (const block of document.querySelectorAll("pre")) if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
for (const lines of document.querySelectorAll("dt > dl")) lines.setAttribute("role", "presentation");
