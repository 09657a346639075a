//go:build race

package batch

// raceDetector is on: a sync.Pool then drops some of what it is given.
const raceDetector = true
