package keeper

// Layer is one of the means by which runs are held together and found again.
type Layer struct {
	Name   string
	Here   bool   // this machine gives it
	Needed bool   // without it a promise does not hold; the others are there in addition
	Detail string // what it is for, or what is lost without it
}
