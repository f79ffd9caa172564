// Before the first paint: take the theme chosen last time, and say that scripts run.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("steelyard-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch (error) { /* storage is off: follow the system */ }
