// Light, dark, or as the system has it. A plain script in the head, so that the page never flashes the other colours.
{
  const STORE = "omnivox.theme";
  const ORDER = ["system", "light", "dark"];
  let theme = "system";
  try {
    theme = ORDER.find((known) => known === localStorage.getItem(STORE)) ?? theme;
  } catch {
    // storage is forbidden: as the system has it
  }

  const apply = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    button?.setAttribute("aria-label", `Colours: ${theme === "system" ? "as the system" : theme}`);
  };

  apply();
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
      try {
        localStorage.setItem(STORE, theme);
      } catch {
        // it lasts as long as the page
      }
      apply();
    });
  });
}
