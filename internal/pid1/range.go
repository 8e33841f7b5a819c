package pid1

// UsersVariable is the environment variable that tells a daemon which users the
// containers of an ordinary user are to have.
const UsersVariable = "LOCALD_BUILTIN_USERS"

// Range is the users and groups of the containers of an ordinary user who has
// been given more than himself: what newuidmap and newgidmap write.
type Range struct {
	UIDs      []IDs  `json:"uids"`
	GIDs      []IDs  `json:"gids"`
	NewUIDMap string `json:"newuidmap"` // the program
	NewGIDMap string `json:"newgidmap"`
}

// IDs are so many numbers from First on in the container, and from Host on
// outside.
type IDs struct {
	First uint32 `json:"first"`
	Host  uint32 `json:"host"`
	Count uint32 `json:"count"`
}

// Has reports whether a container with the range has the user and his groups.
func (r *Range) Has(u User) bool {
	has := hasID(r.UIDs, u.UID) && hasID(r.GIDs, u.GID)
	for _, g := range u.Groups {
		has = has && hasID(r.GIDs, g)
	}
	return has
}

func hasID(ranges []IDs, id uint32) bool {
	for _, r := range ranges {
		if id >= r.First && id-r.First < r.Count {
			return true
		}
	}
	return false
}

// Owner is whose something in an image is, and what its mode then is.
type Owner struct {
	Name []byte `json:"name"` // from the image's root, through no link
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	Mode uint32 `json:"mode"` // 0 for a link
}

// chore is what is done as the root of a user namespace, in place of a
// container: what an ordinary user may not do with files of his range.
type chore struct {
	Remove string  `json:"remove,omitempty"`
	Own    string  `json:"own,omitempty"`
	Owners []Owner `json:"owners,omitempty"`
}
