// The steps of a test: welcome, level, training, trials, end. `state` is kept in the browser after every change, so that a
// closed tab resumes where it was.

const test = JSON.parse(document.getElementById("data").textContent);
const main = document.querySelector("main");
const store = "store" in document.documentElement.dataset; // set by `vocable listen serve`
const slider = test.options.length === 0;
let state = null; // {listener, session, step, started, answers, draft, remarks, finished}
let player = null; // of the step that is shown
let keys = {}; // key -> action, of the step that is shown

document.title = test.title;
document.getElementById("title").textContent = test.title;

// ---- elements and state ----------------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const say = (text) => (document.getElementById("status").textContent = text);
const place = (listener) => `vocable-listening:${test.study}:${listener}`;

function keep() {
  localStorage.setItem(place(state.listener), JSON.stringify(state));
  localStorage.setItem(place("last"), state.listener);
}

const kept = (listener) => JSON.parse(localStorage.getItem(place(listener)) ?? "null");

async function send() {
  if (!store) return false;
  try {
    const response = await fetch("answers", {method: "POST", body: JSON.stringify(result())});
    return response.ok;
  } catch {
    return false; // the answers are still in the browser, and can be downloaded at the end
  }
}

function result() {
  const {listener, session, started, answers, remarks, finished} = state;
  return {format: "vocable-listening-1", study: test.study, listener, session, started, finished, remarks, answers};
}

// ---- steps -----------------------------------------------------------------------------------------------------

function steps() {
  const form = test.forms[state.listener - 1];
  return [
    level,
    ...test.training.map((trial, i) => () => showTrial(trial, i, test.training.length, true)),
    begin,
    ...form.map((trial, i) => () => showTrial(trial, i, form.length, false)),
    finish,
  ];
}

function show() {
  const all = steps();
  const progress = document.getElementById("progress");
  progress.hidden = false;
  progress.querySelector("progress").value = state.step / (all.length - 1);
  progress.querySelector("span").textContent = `Step ${state.step + 1} of ${all.length}`;
  all[Math.min(state.step, all.length - 1)]();
}

function next() {
  state.step++;
  state.draft = null;
  keep();
  show();
}

function screen(heading, ...children) {
  player?.stop();
  player = null;
  keys = {};
  const title = make("h1", {tabIndex: -1}, heading);
  main.replaceChildren(title, ...children.filter((child) => child !== null));
  window.scrollTo(0, 0);
  title.focus();
}

const button = (text, action, properties = {}) => make("button", {type: "button", onclick: action, ...properties}, text);
const primary = (text, action) => make("div", {className: "end"}, button(text, action, {className: "primary"}));
const paragraph = (text) => make("p", {}, text);

function welcome() {
  const asked = Number(new URLSearchParams(location.search).get("listener")) || Number(localStorage.getItem(place("last")));
  const number = make("input", {type: "number", id: "listener", min: 1, max: test.forms.length, value: asked || ""});
  const problem = make("p", {role: "alert", className: "hint"});
  const start = () => {
    const listener = Number(number.value);
    if (!Number.isInteger(listener) || listener < 1 || listener > test.forms.length) {
      problem.textContent = `Type the number of your invitation, 1 to ${test.forms.length}.`;
      number.focus();
      return;
    }
    const session = Array.from(crypto.getRandomValues(new Uint8Array(6)), (b) => b.toString(16).padStart(2, "0")).join("");
    const fresh = {listener, session, step: 0, answers: [], draft: null, remarks: "", finished: null};
    state = kept(listener) ?? {...fresh, started: new Date().toISOString()};
    keep();
    show();
  };
  number.onkeydown = (event) => {
    if (event.key === "Enter") start(); // a handler that returned false would suppress every key
  };
  const begun = asked && kept(asked);
  screen(
    test.title,
    ...test.introduction.map(paragraph),
    make("label", {className: "field", htmlFor: "listener"}, "Your listener number"),
    number,
    problem,
    begun ? paragraph("You have begun this test in this browser. It resumes where you stopped.") : null,
    primary(begun ? "Resume" : "Start", start),
  );
}

function level() {
  player = null;
  const play = button("Play", () => player.toggle(), {"aria-pressed": "false"});
  screen(
    "Set the volume",
    paragraph("Use headphones, in a quiet room. Play the sample and set your volume so that it is comfortable and clear."),
    paragraph("Then leave the volume as it is until the end of the test: all clips have the same loudness."),
    make("div", {className: "bar"}, play, repeatBox()),
    primary("The volume is set", next),
  );
  player = new Player([test.level], true, (i) => {
    play.setAttribute("aria-pressed", String(i >= 0));
    play.textContent = i >= 0 ? "Stop" : "Play";
  });
}

function begin() {
  const count = test.forms[state.listener - 1].length;
  screen(
    "The test begins",
    paragraph(`The training is over. ${count} pages follow; their answers count. You cannot go back to an earlier page.`),
    paragraph("You may take a break at any time, or close the page: it resumes where you stopped."),
    primary("Begin", next),
  );
}

function finish() {
  state.finished ??= new Date().toISOString();
  keep();
  const remarks = make("textarea", {id: "remarks", value: state.remarks});
  remarks.oninput = () => {
    state.remarks = remarks.value;
    keep();
  };
  const outcome = make("p", {role: "alert"});
  const download = () => {
    const blob = new Blob([JSON.stringify(result(), null, 1)], {type: "application/json"});
    const link = make("a", {href: URL.createObjectURL(blob), download: `answers-${test.study}-${state.listener}.json`});
    link.click();
    outcome.textContent = "Your answers are in your downloads. Please send the file to the person who invited you.";
  };
  const submit = async () => {
    outcome.textContent = (await send())
      ? "Your answers are stored. You can close this page."
      : "Your answers could not be stored: please download them and send the file to the person who invited you.";
  };
  screen(
    "Thank you",
    paragraph("All pages are done."),
    make("label", {className: "field", htmlFor: "remarks"}, "Remarks (optional)"),
    remarks,
    outcome,
    make(
      "div",
      {className: "end"},
      button("Download answers", download, {className: store ? "" : "primary"}),
      store ? button("Send answers", submit, {className: "primary"}) : null,
    ),
  );
  if (store) submit();
}

// ---- a trial ---------------------------------------------------------------------------------------------------

function repeatBox() {
  const box = make("input", {type: "checkbox", id: "repeat"});
  box.onchange = () => player.setLoop(box.checked);
  return make("label", {htmlFor: "repeat"}, box, " Repeat");
}

function showTrial(trial, index, count, training) {
  const names = trial.names;
  const buttons = names.map((name, i) => button(name, () => listen(i), {"aria-pressed": "false"}));
  const begun = performance.now();
  const draft = (state.draft ??= {values: slider ? trial.rated.map(() => null) : [null]});
  const position = make("div");
  const listen = (i) => (player.current === i ? player.stop() : player.play(i));

  const advance = () => {
    const missing = player.heard.map((heard, i) => (heard ? null : names[i])).filter((name) => name);
    const problem = missing.length
      ? `Please listen to ${missing.join(", ")} first.`
      : draft.values.includes(null)
        ? slider ? "Please rate every version first: move its slider." : "Please choose an answer first."
        : "";
    hint.textContent = problem;
    if (problem) return;
    const seconds = Math.round((performance.now() - begun) / 100) / 10;
    if (!training) state.answers.push({trial: index, values: draft.values, plays: player.plays, seconds});
    next();
    if (!training) send();
  };
  const hint = make("span", {className: "hint", role: "alert"});
  const end = make("div", {className: "end"}, hint, button("Next", advance, {className: "primary"}));
  const rows = slider ? sliders(trial, buttons, draft) : choices(draft);
  const free = buttons.filter((_, i) => !slider || !trial.rated.includes(i));

  screen(
    (training ? "Training " : "Page ") + `${index + 1} of ${count}`,
    paragraph(test.question + (training ? " (Answers on this page do not count.)" : "")),
    test.checks ? make("p", {className: "hint"}, test.checks) : null,
    make("div", {className: "bar"}, ...free, button("Stop", () => player.stop()), repeatBox()),
    make("div", {className: "position", ariaHidden: "true"}, position),
    ...rows,
    end,
    help(),
  );
  player = new Player(trial.stimuli, test.together, (current) => {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === current)));
    say(current < 0 ? "Stopped" : `Playing ${names[current]}`);
  });
  const shown = player;
  const draw = () => {
    if (shown !== player) return;
    position.style.transform = `scaleX(${shown.position()})`;
    requestAnimationFrame(draw);
  };
  draw();
  names.forEach((name, i) => (keys[name[0].toLowerCase()] = () => listen(i)));
  if (!slider) test.options.forEach((_, i) => (keys[i + 1] = () => document.getElementById(`option${i + 1}`).click()));
}

function sliders(trial, buttons, draft) {
  const scale = make("div", {}, ...test.bands.map((band) => make("span", {}, band)));
  const rows = trial.rated.map((stimulus, i) => {
    const input = make("input", {type: "range", min: 0, max: 100, step: 1, value: draft.values[i] ?? 50});
    const output = make("output");
    const label = () => {
      const value = draft.values[i];
      const band = test.bands[Math.min(4, Math.floor(value / 20))];
      output.textContent = value ?? "not rated";
      output.className = value === null ? "unset" : "";
      input.className = output.className;
      input.setAttribute("aria-valuetext", value === null ? "not rated" : `${value}, ${band}`);
    };
    input.ariaLabel = `Rating of ${trial.names[stimulus]}, 0 is bad, 100 is excellent`;
    input.oninput = () => {
      draft.values[i] = Number(input.value);
      label();
      keep();
    };
    input.onfocus = () => {
      if (player.current >= 0 && player.current !== stimulus) player.play(stimulus);
    };
    label();
    return make("div", {className: "row"}, buttons[stimulus], make("div", {className: "track"}, input), output);
  });
  return [make("div", {className: "scale", ariaHidden: "true"}, scale), ...rows];
}

function choices(draft) {
  const options = test.options.map((text, i) => {
    const input = make("input", {type: "radio", name: "answer", id: `option${i + 1}`, checked: draft.values[0] === i + 1});
    input.onchange = () => {
      draft.values[0] = i + 1;
      keep();
    };
    return make("label", {className: "option", htmlFor: input.id}, input, `${i + 1}. ${text}`);
  });
  return [make("fieldset", {}, make("legend", {}, "Your answer"), ...options)];
}

function help() {
  const box = make("input", {type: "checkbox", id: "shortcuts", checked: localStorage.getItem(place("keys")) !== "off"});
  box.onchange = () => localStorage.setItem(place("keys"), box.checked ? "on" : "off");
  return make(
    "details",
    {},
    make("summary", {}, "Keyboard"),
    make("p", {}, test.keyboard),
    make("label", {htmlFor: "shortcuts"}, box, " Use these keys"),
  );
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=text], input[type=number], textarea");
  const action = keys[event.key.toLowerCase()];
  if (!action || typing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (localStorage.getItem(place("keys")) === "off") return;
  event.preventDefault();
  action();
});

welcome();
