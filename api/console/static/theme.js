(() => {
  const kept = localStorage.getItem("facilitair-theme") || "auto";
  document.documentElement.dataset.theme = kept;
})();
