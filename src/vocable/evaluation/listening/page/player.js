"use strict";
// Plays the stimuli of a trial. With `together`, all start at one moment of one clock and only their gains change, so
// that a listener switches between them at the same moment of the clip.

class Player {
  static context = null;

  // tokens: names in test.stimuli. onchange(index or -1): is called when another stimulus is heard.
  constructor(tokens, together, onchange) {
    Object.assign(this, {tokens, together, onchange, current: -1, loop: false, sources: [], plays: tokens.map(() => 0)});
    this.heard = tokens.map(() => false);
  }

  static decode(token) {
    const bytes = Uint8Array.from(atob(test.stimuli[token]), (c) => c.charCodeAt(0));
    const pcm = new DataView(bytes.buffer);
    const samples = new Float32Array(bytes.length / 2);
    for (let i = 0; i < samples.length; i++) samples[i] = pcm.getInt16(2 * i, true) / 32768;
    const buffer = new AudioBuffer({length: samples.length, sampleRate: test.sample_rate});
    buffer.copyToChannel(samples, 0);
    return buffer;
  }

  play(index) {
    Player.context ??= new AudioContext();
    Player.context.resume();
    if (this.current < 0 || !this.together) this.begin(index);
    this.fade(index);
    this.plays[index]++;
    this.heard[index] = true;
    this.current = index;
    this.onchange(index);
  }

  begin(index) {
    this.end();
    this.buffers ??= this.tokens.map(Player.decode);
    const start = (this.startedAt = Player.context.currentTime + 0.02);
    this.sources = this.buffers.map((buffer, i) => {
      if (!this.together && i !== index) return null;
      const gain = new GainNode(Player.context, {gain: i === index ? 1 : 0});
      const source = new AudioBufferSourceNode(Player.context, {buffer, loop: this.loop});
      source.connect(gain).connect(Player.context.destination);
      source.start(start);
      return {source, gain};
    });
    this.sources[index].source.onended = () => this.stop();
  }

  fade(index) {
    const now = Player.context.currentTime;
    this.sources.forEach((node, i) => {
      if (!node) return;
      node.gain.gain.cancelScheduledValues(now);
      node.gain.gain.setValueAtTime(node.gain.gain.value, now);
      node.gain.gain.linearRampToValueAtTime(i === index ? 1 : 0, now + 0.01);
    });
  }

  end() {
    for (const node of this.sources) {
      if (!node) continue;
      node.source.onended = null;
      node.source.stop();
      node.source.disconnect();
    }
    this.sources = [];
  }

  stop() {
    this.end();
    this.current = -1;
    this.onchange(-1);
  }

  toggle() {
    if (this.current >= 0) this.stop();
    else this.play(0);
  }

  setLoop(loop) {
    this.loop = loop;
    for (const node of this.sources) if (node) node.source.loop = loop;
  }

  // The fraction of the clip that was played.
  position() {
    if (this.current < 0) return 0;
    const length = this.buffers[this.current].duration;
    const played = Math.max(0, Player.context.currentTime - this.startedAt);
    return this.loop ? (played % length) / length : Math.min(1, played / length);
  }
}
