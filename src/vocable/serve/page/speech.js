// Plays the sentences of the tab "Speak" one after another, as they arrive, and lights the word that is spoken.
// props.value: {sentences: [{text, audio, words: [[word, start, end], ...] or null}, ...], done}, times in seconds.
const audio = new Audio(); // outside of the document, because the document is rendered again at each change
let playing = false; // whether the listener wants to hear the speech
let current = 0; // index of the sentence that is played, or of the one that is waited for
let loaded = -1; // index of the sentence that `audio` holds

const sentences = () => props.value?.sentences ?? [];
const button = () => element.querySelector(".play");

function render() {
  const box = element.querySelector(".words");
  box.replaceChildren(
    ...sentences().map((sentence, index) => {
      const line = document.createElement("span");
      line.className = "sentence";
      const words = sentence.words ?? [[sentence.text, 0, Infinity]];
      for (const [text, start, end] of words) {
        const word = document.createElement("span");
        word.className = sentence.words ? "word" : "word untimed";
        word.textContent = text;
        word.dataset.start = start;
        word.dataset.end = end;
        word.addEventListener("click", () => play(index, start));
        line.append(word, " ");
      }
      return line;
    }),
  );
  button().disabled = sentences().length === 0;
  button().onclick = () => (playing ? pause() : play(current < sentences().length ? current : 0));
  light();
}

function light() {
  button().classList.toggle("playing", playing);
  element.querySelectorAll(".sentence").forEach((line, index) => {
    for (const word of line.querySelectorAll(".word")) {
      const heard = index === loaded && audio.currentTime >= word.dataset.start && audio.currentTime < word.dataset.end;
      word.classList.toggle("lit", heard && !audio.ended);
      word.classList.toggle("spoken", index < loaded || (index === loaded && audio.currentTime >= word.dataset.end));
    }
  });
  if (playing) requestAnimationFrame(light);
}

function play(index, start = null) {
  const begins = !playing;
  playing = true;
  current = index;
  if (loaded !== index) {
    audio.src = sentences()[index].audio;
    loaded = index;
  }
  if (start !== null || audio.ended) audio.currentTime = start ?? 0;
  audio.play().catch(() => pause()); // the browser may not allow sound before a click
  if (begins) light();
}

function pause() {
  playing = false;
  audio.pause();
  light();
}

audio.addEventListener("ended", () => {
  current = loaded + 1;
  if (current < sentences().length) play(current);
  else if (props.value?.done) playing = false;
});

watch("value", () => {
  const count = sentences().length;
  if (count === 0) {
    audio.pause();
    audio.removeAttribute("src");
    [current, loaded, playing] = [0, -1, false];
  }
  render();
  const waits = loaded === -1 || (playing && audio.ended);
  if (count > current && waits) play(current);
  else if (props.value?.done && audio.ended) playing = false;
});

render();
