// Runs before anything is painted, so that no page flashes in the wrong colors. Not a module for that reason.
(() => {
  try {
    const theme = localStorage.getItem("distbp.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is closed to us: the system's choice holds
  }
})();
