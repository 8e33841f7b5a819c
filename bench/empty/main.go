// Command empty does nothing: no Go program answers sooner than it ends.
package main

func main() {}
