//go:build race

package vfs

// raceDetector is on: a sync.Pool then drops some of what it is given.
const raceDetector = true
