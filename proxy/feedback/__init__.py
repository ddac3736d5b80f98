"""What users say of rankings: taken by any replica, by a signed token that carries what is needed to judge it."""
