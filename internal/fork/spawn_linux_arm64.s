#include "textflag.h"

// func spawn(args *cloneArgs, size uintptr, calls *call, n uintptr, failed *verdict) (pid, errno uintptr)
//
// The child runs on the parent's stack, which it must not touch: it has registers
// alone.
TEXT ·spawn(SB), NOSPLIT|NOFRAME, $0-56
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	calls+16(FP), R19
	MOVD	n+24(FP), R20
	MOVD	failed+32(FP), R21
	MOVD	$435, R8 // clone3
	SVC
	CBZ	R0, child
	CMP	$0, R0
	BLT	refused
	MOVD	R0, pid+40(FP)
	MOVD	ZR, errno+48(FP)
	RET
refused:
	NEG	R0, R0
	MOVD	ZR, pid+40(FP)
	MOVD	R0, errno+48(FP)
	RET
child:
	MOVD	0(R19), R8
	MOVD	8(R19), R0
	MOVD	16(R19), R1
	MOVD	24(R19), R2
	MOVD	32(R19), R3
	MOVD	40(R19), R4
	SVC
	CMN	$4095, R0
	BCS	failed
	ADD	$48, R19
	SUBS	$1, R20
	BNE	child
	MOVD	$38, R0 // the last was not to return: ENOSYS
	MOVD	R0, 0(R21)
	B	exit
failed:
	NEG	R0, R0
	MOVD	R0, 0(R21)
	MOVD	0(R19), R0
	MOVD	R0, 8(R21)
exit:
	MOVD	$127, R0
	MOVD	$93, R8 // exit
	SVC
	B	exit
