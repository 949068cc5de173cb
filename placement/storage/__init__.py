"""Block storage: pools from capability reports, and volumes placed on them by the rules of Cinder 29."""
