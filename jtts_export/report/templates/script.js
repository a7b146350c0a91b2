// A/B switch: the clip that plays gives way to another at the same moment. Without this script the players still play.
"use strict";
for (const article of document.querySelectorAll(".case")) {
  const players = [...article.querySelectorAll("audio")];
  const bar = article.querySelector(".switch");
  const buttons = [...bar.querySelectorAll("button")];
  let last = null;
  const show = () => buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(!players[i].paused)));
  bar.hidden = false;
  players.forEach((player, i) => {
    player.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
      last = player;
      show();
    });
    player.addEventListener("pause", show);
    buttons[i].addEventListener("click", () => {
      if (!player.paused) return player.pause();
      if (last && last !== player && !last.ended) player.currentTime = Math.min(last.currentTime, player.duration || 0);
      player.play().catch(show);
    });
  });
}
