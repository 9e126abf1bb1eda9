// Of pages that hold the words alike: guides before reference, reference before records of work.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    const worth = {
      user_guide: 4, install: 4, theory: 2, auto_examples: 1,
      benchmarks: -2, design: -3, where_to_change: -3, contributing: -3, whats_new: -3,
    };
    // The glossary says what a word means, the guide what to do.
    const value = docname.endsWith("/glossary") ? 0 : worth[docname.split("/")[0]] || 0;
    return score + value;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
